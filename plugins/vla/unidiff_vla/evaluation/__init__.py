"""Success in closed loop: episodes on unseen layouts, in several wordings, with their intervals."""
