"""Each policy that ships keeps the laws that any plug-in has to keep."""

from flowos.testing.schedulers import SchedulerLaws
from flowos_schedulers.batch import Batch
from flowos_schedulers.inference import Inference
from flowos_schedulers.mpi import Mpi
from flowos_schedulers.service import Service
from flowos_schedulers.stream import Stream
from flowos_schedulers.training import Training


class TestBatch(SchedulerLaws):
    policy = Batch


class TestService(SchedulerLaws):
    policy = Service


class TestMpi(SchedulerLaws):
    policy = Mpi


class TestTraining(SchedulerLaws):
    policy = Training


class TestStream(SchedulerLaws):
    policy = Stream


class TestInference(SchedulerLaws):
    policy = Inference
