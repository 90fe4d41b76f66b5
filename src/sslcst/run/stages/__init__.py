"""The stages of a run, in the order of `sslcst.run.pipeline`."""
