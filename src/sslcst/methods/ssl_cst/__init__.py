"""SSL-CST, the method of the paper (Huo, Zhang, Wang & Zhang 2026), complete."""
