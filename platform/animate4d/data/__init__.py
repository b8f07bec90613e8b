"""The labelled clip stream: sample schema, Ray Data reader and labeller, plain in-process loader."""
