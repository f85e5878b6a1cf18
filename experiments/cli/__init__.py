"""`emostream`: the one command line of the chain and the instrument.

It is here because it knows both: the chain may not import the instrument.
"""
