"""The model: waveform CNN, encoder, heads."""
