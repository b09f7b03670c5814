"""ONNX files: `export_onnx` writes a net as one, `import_onnx` reads one as a net."""
