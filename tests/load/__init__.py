"""Load with a fixed amount of work, and an account of it: nothing lost, nothing doubled, nobody's bytes another's.

Clients and model server run in processes of their own. What the model answers follows from the request, and every
request is unlike any other: whatever is mixed up on the way shows, at the client or in the database.
"""
