"""Imported first by the process that workers are forked from: no signal ends that process, its driver's end does.

It was started with the signals blocked; a process that is forked from it has them as any other.
"""

import os
import signal

from cifar_mlflow.tuning.process_executor import SIGNALS

os.register_at_fork(after_in_child=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS))
