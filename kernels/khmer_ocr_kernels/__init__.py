"""Kernels of khmer_ocr: plain-numpy references and fast implementations with the same signature and the same bytes."""
