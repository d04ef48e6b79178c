"""What the policies are made of: an order, weights, wishes of their own, and what lies near."""
