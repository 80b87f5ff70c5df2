"""What a schedule costs, by a model of the machine."""
