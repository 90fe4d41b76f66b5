"""The density method: in a cell or not by the density of transcripts, whose by the nearest nucleus."""
