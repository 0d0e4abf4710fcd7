"""Who splits traffic."""
