"""What is shipped beside the code: the image and the services around it, and what they are made of.

`Containerfile` and `compose.yaml` stand here, because the top level has a folder for each subject and this is one more.
"""
