"""What is in the data before anything is trained (`metakd inspect`), and what the machine lacks (`metakd doctor`).
Needs no torch.
"""
