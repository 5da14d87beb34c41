"""Mathematics of discrete diffusion: schedules, noise, objectives, counter-based random numbers."""
