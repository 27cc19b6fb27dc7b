"""Before anything is read or trained: what it will take, and whether this machine has it."""
