"""The viewer of a bundle: one page that plays the moving object, offline, in WebGL2."""
