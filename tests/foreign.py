"""A network of others, as its author has it in a file."""

OWN = """
import torch
from beside import WIDTH
from torch import nn

print("made")

class Network(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(64, width)
        self.outer = nn.Linear(width, 10)

    def forward(self, x):
        print("called")
        return self.outer(self.inner(x.flatten(1)).relu())

def make(width=WIDTH):
    return Network(width)

def broken():
    raise ValueError("no such size")

def nothing():
    pass

ready = Network(4)
number = 3
"""
