"""Who may write to a command's stderr? Not grpc's core, which tells of each failed handshake there.

What went wrong is in our errors. grpc reads this when it is imported, so this comes before; whoever
wants the lines sets GRPC_VERBOSITY.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
