"""One row under the microscope: what each generated token was chosen from, and what the answer looked at."""
