"""Quantisation after training: ranges of activations, found by running a net in f32."""
