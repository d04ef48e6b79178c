"""The paper's light model: a decision takes t_job + t_task x tasks, a machine is CPU and memory."""
