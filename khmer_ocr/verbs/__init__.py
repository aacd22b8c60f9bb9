"""The verbs of the command line, one module for each half of the house; `khmer_ocr.cli` puts them together."""
