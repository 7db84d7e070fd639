"""One module an entry point of MLproject, under the same name; each wires the wings, top to bottom."""
