package routing

// ReportPort is where each gateway pod answers GET /report with a [Report].
const ReportPort = 8081

// Via is how answers that came through a gateway name it in their header Via.
const Via = "trainyard-gateway"

// Report is what a gateway pod tells the operator.
type Report struct {
	// Started is the process's start, in nanoseconds since 1970. It tells
	// processes apart: counts begin anew with each.
	Started int64 `json:"started"`
	// Services are those that the gateway knows.
	Services []Load `json:"services"`
}

// Load is what one gateway pod tells of one service.
type Load struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Requests that came, whatever became of them. It only grows.
	Requests int64 `json:"requests"`
	// Held is how many wait for a pod now.
	Held int64 `json:"held"`
	// ColdStart is how the last wake went; nil before the first.
	ColdStart *ColdStart `json:"coldStart,omitempty"`
}

// ColdStart is one wake of a service from zero.
type ColdStart struct {
	// At is when a pod answered, in nanoseconds since 1970.
	At int64 `json:"at"`
	// Seconds from the first request to that moment.
	Seconds float64 `json:"seconds"`
}
