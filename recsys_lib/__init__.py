"""Reference library of the book *Recommenders in Real Time*.

Rooms stand in the order in which data flows; each imports only from those before it, and has one
verb: ``data`` loads, ``objectives`` compare, ``evaluation`` evaluates, ``models`` fit, ``training``
trains Keras models, ``compression`` prunes, quantizes and distils, ``serving`` serves, ``recipe``
compresses in steps, ``text`` encodes, ``notebook`` is what chapters share. Below all of them lie
``checks`` (of arguments) and ``files`` (the one file format).

Nothing heavy is imported here: TensorFlow, Keras and Numba load when a function needs them.
"""

__version__ = "0.1.0"
