"""The report of a campaign, read back from the files its runs left."""
