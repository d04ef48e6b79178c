"""The parts of the planning benchmark: each measures one kind of question and adds its figures."""
