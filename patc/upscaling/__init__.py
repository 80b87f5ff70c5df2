"""Pictures and streams of frames through super-resolution nets, of any size from one compiled model."""
