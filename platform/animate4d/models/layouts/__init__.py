"""Weight files of other people: reading them safely, and key maps both ways, one file per published layout."""
