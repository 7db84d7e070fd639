"""What is made of trained models: a calibrated one, an ONNX file, a list of labels that are likely to be wrong."""
