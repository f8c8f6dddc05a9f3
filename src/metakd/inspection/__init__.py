"""What is in the data before training (`metakd inspect`), and what the machine has and needs (`metakd doctor`).
Needs no torch.
"""
