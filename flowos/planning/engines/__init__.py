"""Which engines and hosts does a request get?"""
