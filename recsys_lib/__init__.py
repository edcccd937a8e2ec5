"""Reference library of the book *Recommenders in Real Time*.

Rooms, in the order in which data flows; each imports only from those before it:
``data``, ``objectives``, ``evaluation``, ``models``, ``training``, ``serving``, ``notebook``.

Nothing heavy is imported here: TensorFlow and Keras load when a function needs them.
"""

__version__ = "0.1.0"
