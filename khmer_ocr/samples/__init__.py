"""The bundled sample corpus: Khmer lines written for this project, a blank line between documents."""
