"""From lowered modules to machine code: the reference executor and the back ends, one file each."""
