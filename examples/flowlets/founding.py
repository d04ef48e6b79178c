"""The founding example: add one block of bytes to many others, and join what comes out."""

from flowos.flowlet import AddBytewise, Concat, Sink, Source

global_data = bytes(range(16))
array_data = [bytes([number]) * 16 for number in range(10)]

global_src = Source(global_data)
parts = [AddBytewise(global_src, Source(x)) for x in array_data]
sink = Sink(Concat(*parts))
sink.execute()
print(sink.result.hex(" ", 16))
