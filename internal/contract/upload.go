package contract

import (
	"bytes"
	"errors"
	"io/fs"
	"mime/multipart"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
)

var uploadRows = section{"upload", []row{
	{"an upload behind a guard leaves no temporary file", uploadIsRemoved},
}}

// uploads are the names of temporary files.
type uploads struct {
	mu    sync.Mutex
	names []string
}

// receive handles an upload that net/http has stored in a temporary file.
func (u *uploads) receive(c *gin.Context) {
	name, err := temporaryFile(c)
	if err != nil {
		c.String(http.StatusInternalServerError, "%v", err)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.names = append(u.names, name)
	c.Status(http.StatusNoContent)
}

// temporaryFile returns the name of the temporary file of an upload.
func temporaryFile(c *gin.Context) (string, error) {
	header, err := c.FormFile("file")
	if err != nil {
		return "", err
	}
	file, err := header.Open()
	if err != nil {
		return "", err
	}
	defer file.Close()
	onDisk, ok := file.(*os.File)
	if !ok {
		return "", errors.New("the upload is in memory, want a temporary file")
	}
	return onDisk.Name(), nil
}

// asUpload is a multipart body with one file, too large for the server's memory.
func asUpload() body {
	var content bytes.Buffer
	w := multipart.NewWriter(&content)
	file, _ := w.CreateFormFile("file", "large.bin") // no errors: it writes to a buffer
	_, _ = file.Write(make([]byte, 10*maxUploadMemory))
	_ = w.Close()
	return body{w.FormDataContentType(), content.String()}
}

// uploadIsRemoved checks that the server, which removes the temporary files of the request that
// it made, finds them after the guards have changed that request.
func uploadIsRemoved(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	for _, path := range []string{"/upload", "/optional/upload", "/nested/upload"} {
		r.expect(path, r.post(path, asUpload(), r.withToken(token)), noContent())
	}
	r.expect("anonymous", r.post("/optional/upload", asUpload()), noContent())
	r.expect("rejected", r.post("/upload", asUpload()), r.unauthorized(noToken))

	r.server.Close() // waits until the server has finished the requests
	if got := len(r.uploads.names); got != 4 {
		t.Errorf("got %d uploads, want 4", got)
	}
	for _, name := range r.uploads.names {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got the temporary file %s after the upload (error %v), want none", name, err)
		}
	}
}
