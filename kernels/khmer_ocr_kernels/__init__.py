"""Kernels of khmer_ocr: plain-numpy references and fast twins with the same signature and the same bytes."""
