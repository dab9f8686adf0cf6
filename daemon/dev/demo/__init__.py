"""`tickcast demo`: everything on one machine. `story` tells it from beginning to end."""
