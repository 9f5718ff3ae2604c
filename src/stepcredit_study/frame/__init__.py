"""What the claims share: settings at each scale, worlds, measurements over seeds, and how they run."""
