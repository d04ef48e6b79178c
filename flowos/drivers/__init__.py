"""What an agent can drive: each driver turns steps into real changes of devices."""
