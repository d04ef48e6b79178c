"""One file for each command or group of commands; imported only when it is called."""
