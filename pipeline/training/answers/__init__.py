"""What a trained run is asked, once: of held-out clips, of validation (its temperature), of training clips (their speakers)."""
