"""Several processes of one training, which torchrun starts: who this one is, and all that they say to each other.

Nothing else of ours knows torch.distributed, which is imported where there is more than one process. Each is a rank;
all take the same decisions, at the same places.

torchrun.py   what torchrun says to a process, and how one ends that torchrun watches
joining.py    how ranks find each other, and how long one waits for another
team.py       what they compute and agree on together
farewell.py   the word that one leaves for the others when its work ends
"""
