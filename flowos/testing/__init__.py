"""What must a plug-in do? Laws for those who write one: run them in its own tests.

`flowos.testing.schedulers` has those of scheduler plug-ins, `flowos.testing.drivers` those of what
drives devices. Nothing in here is needed where Flow OS
runs; what the installed schedulers are checked with when they are loaded needs no other package.
"""
