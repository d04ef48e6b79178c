"""What does the smallest MPI program do? Each rank says who it is, and all add up their ranks.

    mpirun --hostfile $FLOWOS_HOSTFILE -np $FLOWOS_SIZE python mpi_hello.py

It needs no more than OpenMPI's library; programs of yours rather use mpi4py, C or Fortran.
"""

import ctypes
import os

# Its handles are addresses of objects in the library.
mpi = ctypes.CDLL("libmpi.so.40", mode=ctypes.RTLD_GLOBAL)
world, integer, plus = (
    ctypes.byref(ctypes.c_char.in_dll(mpi, name))
    for name in ("ompi_mpi_comm_world", "ompi_mpi_int", "ompi_mpi_op_sum")
)


def number_from(call: str) -> int:
    """Return what a call of MPI tells of the world."""
    found = ctypes.c_int()
    getattr(mpi, call)(world, ctypes.byref(found))
    return found.value


mpi.MPI_Init(None, None)
rank, size = number_from("MPI_Comm_rank"), number_from("MPI_Comm_size")
mine, total = ctypes.c_int(rank), ctypes.c_int()
mpi.MPI_Allreduce(ctypes.byref(mine), ctypes.byref(total), 1, integer, plus, world)
print(f"rank {rank} of {size} in {os.environ.get('FLOWOS_SLICE', 'no slice')}: {total.value}")
mpi.MPI_Finalize()
