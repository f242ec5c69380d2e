"""What several machines do together: three databases, three services, a load balancer, and any of them is lost."""
