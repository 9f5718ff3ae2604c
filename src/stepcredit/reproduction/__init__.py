"""What the experiments share: outputs, settings at each scale, measurements, findings and how they run."""
