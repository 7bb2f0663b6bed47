import os
import signal
import threading

from suan_jax.training.preemption import StopSignal


def test_a_signal_is_remembered_within_the_context_alone():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert not stop.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_it_is_quiet():
    seen = []

    def job():
        with StopSignal() as stop:
            seen.append(stop.received)

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert seen == [False]
