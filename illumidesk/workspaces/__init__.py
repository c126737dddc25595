"""What people work in: pages of their server, and the programs behind some of them."""
